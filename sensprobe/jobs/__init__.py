"""The jobs: what may be done to a model, a module each; every job returns plain values.

    sites -> profile -> search -> confirm -> export -> evaluate,   and cost, train, doctor, …

Jobs work on an open `Session`; `sensprobe.api` has the same with names and paths for arguments. A
job that runs long tells the session's progress, keeps what it finished when interrupted, and
continues from there when it is called again.
"""
