"""Networks only: pure nn.Modules that know nothing of configurations, data or training."""
