"""What is kept: documents, wake-ups, events, tags, object rows, metric points. Knows no service and no HTTP."""
