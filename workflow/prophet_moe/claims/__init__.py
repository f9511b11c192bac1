"""The ledger: what the reports claim, bound to finished tables, evaluated and judged."""
