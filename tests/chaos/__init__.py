"""The host is killed again and again while people act, on real Storage; then everything must agree, and once only."""
