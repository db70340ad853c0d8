"""Measuring: conversations with questions whose evidence is known are put into cubes of their own, and the questions asked."""
