"""Colours and font of every figure: Okabe and Ito's, which colour-blind readers tell apart."""

RIGHT, WRONG, BLUE = "#009E73", "#D55E00", "#0072B2"
INK, FAINT = "#222222", "#767676"
FONT = "DejaVu Sans"  # comes with matplotlib
