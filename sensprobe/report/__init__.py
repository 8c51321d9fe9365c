"""Results as tables, terminal text, figures, pictures, and a page. Pure functions; no model here.

found = gather.gather(run)               everything a run holds, as typed values
tables.sensitivity(found.measured)       pandas, for reading      rows.*: numbers, for CSV
terminal.sensitivity_report(...)         rich renderables
chart = charts.heat_map(...)             a figure's values and layout, prepared once and drawn by
    drawing.screen.draw(chart)               Plotly, for page and dashboard
    drawing.paper.draw(chart)                matplotlib, PNG bytes for print
    drawing.text.draw(chart)                 characters, for a terminal
writing.write_report(run)                all of it, into <run>/report/

Nothing is imported here: a command that prints one number waits for no library that draws.
"""
