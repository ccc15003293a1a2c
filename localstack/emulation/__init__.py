"""An emulated Amazon EC2 whose instances are real SSH hosts. One process is one cloud.

    client (boto3, Terraform) -> proxy -> LocalStack, or moto's server
                                   |
                                 hosts -> spawner -> one init per host, with an sshd of its own
                                    (without root: one machine of the local provider per host)

`python -m emulation` runs it in the foreground; `emulation.client.Emulation` runs it for a test.
"""
