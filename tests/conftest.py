"""Shared set-up: a tiny data set in Flowers102's own file layout, drawn by the test."""
