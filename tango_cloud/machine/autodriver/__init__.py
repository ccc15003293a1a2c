"""The command `autodriver` for machines that Tango itself runs jobs on: the same options, exit
codes and output as Tango's own, and our driver behind them.
"""
