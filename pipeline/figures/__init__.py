"""Every plot, one function per figure: data in, `matplotlib.figure.Figure` out. Nothing here reads or computes."""
