"""What operators see of a server: its health, its metrics, its access log; and the accounts that they give it."""

METRICS_FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable of prometheus-client, which reads it when it is imported."""
