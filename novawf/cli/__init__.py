"""The command line `novawf`: one module per group of commands. It starts no Ray and imports none.

Commands import what they need when they run: typer and the store's client alone take a quarter of
a second, and `novawf status` is typed often.
"""
