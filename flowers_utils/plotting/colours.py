"""Okabe and Ito's colours, told apart by colour-blind readers too."""

BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#666666"
