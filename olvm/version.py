"""The version, apart, so that nothing heavy is imported to know it."""

VERSION = "0.1.0"
