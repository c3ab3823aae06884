"""Figures for print and for the page: PNG, SVG, PDF, and a CSV with what each one shows."""
