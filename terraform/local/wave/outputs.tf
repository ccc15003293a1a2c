output "machines" {
  description = "The machines of this wave under their uids: instance id, SSH address and port, zone and instance type. Whether a machine lives is told by its instance document, not here."
  value = {
    for uid, machine in var.machines : uid => {
      instance_id   = "i-${uid}"
      address       = local.addresses[uid]
      port          = local.machine_ports[uid]
      zone          = machine.zone
      instance_type = machine.instance_type
    }
  }
}
