"""The loop: any method, any dataset. Nothing here knows a paper."""
