"""The dashboard: a folder of runs in a browser. `sensprobe dashboard [RUNS]` starts it.

    main.py      the page: navigation, which run
    store.py     what is read from disk, kept until it changes
    controls.py  widgets whose values live in the address, and small pieces of text
    jobs.py      commands that run in the background
    views/       one file a view

It holds no model and computes nothing itself: values, tables and figures are `sensprobe.report`'s.
"""
