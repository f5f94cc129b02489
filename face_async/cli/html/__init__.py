"""The HTML pages that reports are made of."""
