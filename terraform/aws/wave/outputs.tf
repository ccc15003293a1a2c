output "machines" {
  description = "The machines of this wave under their uids: instance id, SSH address and port, zone and instance type."
  value = {
    for uid, machine in aws_instance.machine : uid => {
      instance_id   = machine.id
      address       = var.envelope.public_address ? machine.public_ip : machine.private_ip
      port          = 22
      zone          = machine.availability_zone
      instance_type = machine.instance_type
    }
  }
}
