"""Tasks that move the messages of a dead-letter queue back to where they came from, or elsewhere."""
