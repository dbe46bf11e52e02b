"""How clients' updates are sent: one method a file, built by `registry.build_method`."""
