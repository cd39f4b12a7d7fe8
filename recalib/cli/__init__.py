"""The command line: one thin module a command. Nothing outside this package prints."""
