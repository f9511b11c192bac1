"""The report page: claims, charts, plans, figures and tables in one HTML file that works offline.

Its libraries come from locked packages that carry their JavaScript, so that none is downloaded and none is committed:

* Charts are Vega-Lite, declared by Vega-Altair, whose pickers and tooltips are part of a declaration. `vl_convert`, by
  the same maintainers, bundles the JavaScript (0.9 MB; Plotly's is 4.6 MB). Both have the licence BSD-3 and several
  releases a year.
* Tables with search, order and pages are DataTables, as the package `itables` for notebooks bundles it. Both have the
  licence MIT and several releases a year.

What is left of our own is `page.js`: it hands declarations to these libraries, and redraws charts in the reader's
colours.
"""
