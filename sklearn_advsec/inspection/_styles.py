"""Line styles that tell curves apart without their colours, also where they coincide."""

from itertools import cycle, islice

_MARKERS = "osD^vP*X"
_DASHES = ("-", "--", "-.", ":")

# What is proved: thin, and on top of an attack that reaches it.
CERTIFICATE = {
    "color": "black",
    "linestyle": (0, (1, 1)),
    "linewidth": 1.2,
    "marker": "|",
    "zorder": 3,
}


def line_style(ax, kwargs, **defaults):
    """Return how to draw the next curve in some axes: marker, dashes and width.

    Of two curves in the same place the later one is thinner, and its markers are hollow
    rings of another form, so that both are seen.

    Parameters
    ----------
    ax : matplotlib Axes
        Where curves were drawn before.
    kwargs : dict
        What the user wants, by any name that matplotlib takes.
    **defaults : dict
        What else is to be, unless the user wants something else.
    """
    from matplotlib.cbook import normalize_kwargs
    from matplotlib.lines import Line2D

    n = sum(not line.get_label().startswith("_") for line in ax.lines)
    style = {
        "marker": next(islice(cycle(_MARKERS), n, None)),
        "linestyle": next(islice(cycle(_DASHES), n, None)),
        "linewidth": max(1.2, 3.0 - 0.6 * n),
        "markersize": 5 + 1.5 * (n % 3),
        "markerfacecolor": "none" if n else None,
        "zorder": 2 + 0.01 * n,
    }
    return {**style, **defaults, **normalize_kwargs(kwargs, Line2D)}


def make_axes(ax, name):
    """Return the axes to draw in, which are those of a new figure if there are none.

    Parameters
    ----------
    ax : matplotlib Axes or None
        As the user gave them.
    name : str
        Of the method, for the error where matplotlib is missing.
    """
    from .._sklearn import check_matplotlib_support

    check_matplotlib_support(name)
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots()[1]
