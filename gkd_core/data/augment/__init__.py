"""How an image is changed before it is shown."""
