"""``make live``: how fast an answer reaches its task, and how many pages can look on. Prints figures; asserts counts only."""
