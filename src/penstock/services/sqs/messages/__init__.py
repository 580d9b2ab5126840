"""Messages: sent, received, deleted, hidden for longer, alone and by tens."""
