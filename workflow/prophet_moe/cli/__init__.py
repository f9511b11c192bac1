"""The command line `prophet-moe`: use the library without the workflow."""
