"""Trials with intervals, the tables, figures and sentences made of them, and the demo.

Accuracy is never reported without its cost. Asks through `inference`; knows nothing of training.
"""
