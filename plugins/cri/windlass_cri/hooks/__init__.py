"""The steps in which hook plugins take part, and what they may do."""
