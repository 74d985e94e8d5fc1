"""What reads and makes operations of a traced graph."""
