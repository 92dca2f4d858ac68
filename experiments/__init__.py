"""An experiment's folder, its log, and what may change in it."""
