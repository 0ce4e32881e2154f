"""Bad input, made by the thousand: what it is, what it is given to, and the verdict."""
