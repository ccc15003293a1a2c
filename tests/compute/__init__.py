"""An emulated Google Compute Engine whose instances are real SSH hosts. One process is one cloud.

    client (google-cloud-compute, Terraform) -> api: checks, faults -> collections, operations
                                                                           |
                                              hosts (localstack/emulation) -> one per instance

What comes in and what goes out is held to Google's own description of the API, the discovery
document that the package google-api-python-client has in it: a request that does not fit is
answered 400, an answer of our own that does not fit becomes a 500 and fails the test, a method that
is described and not emulated is answered 501. The document says nothing of behaviour: that is from
Google's documentation, and README.md names what is an assumption.

`python -m tests.compute` runs it in the foreground; `tests.compute.client.ComputeEmulation` runs it
for a test.
"""
