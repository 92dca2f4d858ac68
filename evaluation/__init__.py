"""Scoring images, figures of merit, and the files and pictures of an evaluation."""
