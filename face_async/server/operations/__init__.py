"""What operators see of a server: its health, its metrics, its access log; and the accounts that they give it."""
