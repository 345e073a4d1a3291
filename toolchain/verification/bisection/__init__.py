"""The smallest network and input on which two backends still part, and a folder that shows it to whoever can mend it."""
