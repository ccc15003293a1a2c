"""What runs on the machines: the agent, and the driver that it runs jobs under.

Nothing here is ever installed on a machine. A transport sends these modules' sources over its
connection and runs them with the machine's own Python (3.9 or later, standard library only), so
that both ends are always of one version and no job can have tampered with them.
"""
