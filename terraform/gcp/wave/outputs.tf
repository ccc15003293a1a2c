output "machines" {
  description = "The machines of this wave under their uids: instance id, SSH address and port, zone and instance type."
  value = {
    for uid, machine in google_compute_instance.machine : uid => {
      instance_id   = "${machine.zone}/${machine.name}"
      address       = try(machine.network_interface[0].access_config[0].nat_ip, machine.network_interface[0].network_ip)
      port          = 22
      zone          = machine.zone
      instance_type = machine.machine_type
    }
  }
}
