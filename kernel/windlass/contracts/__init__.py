"""What plugins promise each other: a module for each contract, with its types and its plugin type."""
