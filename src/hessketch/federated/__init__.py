"""Federated training: clients, methods of sending little, rounds, bytes."""
