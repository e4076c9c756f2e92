"""How the report's charts look: few lines, the same colours for the same thing, legible on a phone."""

import plotly.graph_objects as go

__all__ = ["BEST", "NOTEBOOK", "OTHER", "OTHER_LIGHT", "styled"]

BEST, NOTEBOOK, OTHER = "#0072B2", "#E69F00", "#9AA0A6"
"""Colours of the best trial or the ensemble, of the notebook recipe, and of all else; told apart by the colour-blind
too (Okabe and Ito 2008)."""
OTHER_LIGHT = "#CBD3DA"
"""Where a scale towards BEST begins."""

_AXIS = {"gridcolor": "#E6E8EB", "linecolor": "#B0B5BB", "zeroline": False, "ticks": "outside", "tickcolor": "#B0B5BB"}
_TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": "#222"},
        "colorway": [BEST, NOTEBOOK, "#009E73", "#CC79A7", "#56B4E9", "#D55E00", OTHER],
        "plot_bgcolor": "white",
        "paper_bgcolor": "white",
        "xaxis": {**_AXIS, "automargin": True, "title": {"standoff": 8}},
        "yaxis": {**_AXIS, "automargin": True, "title": {"standoff": 8}},
        "hovermode": "closest",
        "hoverlabel": {"align": "left"},
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
        "margin": {"l": 10, "r": 10, "t": 10, "b": 10},
        "height": 360,
    }
)


def styled(figure: go.Figure) -> go.Figure:
    """Return the figure in the report's style, with no title of its own, and still under a finger that scrolls."""
    figure.update_layout(template=_TEMPLATE, title=None, dragmode=False)
    figure.update_xaxes(fixedrange=True)
    figure.update_yaxes(fixedrange=True)
    if figure.layout.height is None:
        figure.update_layout(height=_TEMPLATE.layout.height)
    return figure
