variable "deployment" {
  description = "The deployment that owns these machines, as the label tango-deployment spells it."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9_-]{1,63}$", var.deployment))
    error_message = "The deployment must be 1 to 63 of the characters a-z, 0-9, _ and -."
  }
}

variable "wave" {
  description = "The name of this wave: the machines that one apply creates."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9_-]{1,63}$", var.wave))
    error_message = "The wave must be 1 to 63 of the characters a-z, 0-9, _ and -."
  }
}

variable "machines" {
  description = "The machines of this wave, each under its uid: 12 hexadecimal digits that no other machine ever has. The image is an image's path, the zone one of the envelope's, the expiry a time as in RFC 3339, and run_seconds how long the machine may run from when it is made."
  type = map(object({
    image         = string
    instance_type = string
    zone          = string
    market        = optional(string, "on-demand")
    disk_gib      = optional(number)
    tags          = map(string)
    expires       = string
    run_seconds   = number
  }))
  nullable = false

  validation {
    condition     = alltrue([for uid in keys(var.machines) : can(regex("^[0-9a-f]{12}$", uid))])
    error_message = "Every key of machines must be a uid: 12 hexadecimal digits in lower case."
  }

  validation {
    condition     = alltrue([for machine in values(var.machines) : can(regex("^(https://www\\.googleapis\\.com/compute/v1/)?projects/[a-z0-9.:-]+/global/images/(family/)?[a-z]([a-z0-9-]*[a-z0-9])?$", machine.image))])
    error_message = "A machine's image must be the path of an image: projects/.../global/images/..."
  }

  validation {
    condition     = alltrue([for machine in values(var.machines) : can(regex("^[a-z0-9]+(-[a-z0-9]+)+$", machine.instance_type))])
    error_message = "A machine's instance_type must be a machine type of Compute Engine: e2-standard-2."
  }

  validation {
    condition     = alltrue([for machine in values(var.machines) : contains(["on-demand", "spot"], machine.market)])
    error_message = "A machine's market must be on-demand or spot."
  }

  validation {
    condition     = alltrue([for machine in values(var.machines) : machine.disk_gib == null || try(machine.disk_gib >= 10 && machine.disk_gib <= 65536 && floor(machine.disk_gib) == machine.disk_gib, false)])
    error_message = "A machine's disk_gib must be a whole number from 10 to 65536, or null for the image's own size."
  }

  validation {
    condition     = alltrue([for machine in values(var.machines) : can(timeadd(machine.expires, "0s"))])
    error_message = "A machine's expires must be a time as in RFC 3339, for example 2030-01-31T12:00:00Z."
  }

  validation {
    condition     = alltrue([for machine in values(var.machines) : try(machine.run_seconds >= 30 && machine.run_seconds <= 10368000 && floor(machine.run_seconds) == machine.run_seconds, false)])
    error_message = "A machine's run_seconds must be a whole number from 30 to 10368000, which are 120 days."
  }

  validation {
    condition = alltrue([
      for machine in values(var.machines) : length(machine.tags) <= 64 && alltrue([
        for key, text in machine.tags : can(regex("^[a-z][a-z0-9_-]{0,62}$", key)) && can(regex("^[a-z0-9_-]{0,63}$", text))
      ])
    ])
    error_message = "A machine's tags, at most 64, must keep to the characters a-z, 0-9, _ and -, and to 63 of them; a key begins with a letter."
  }

  validation {
    condition = alltrue([
      for machine in values(var.machines) : lookup(machine.tags, "tango-deployment", "") != ""
    ])
    error_message = "A machine's tags must hold tango-deployment: who owns the machine is known by it."
  }
}

variable "user_data" {
  description = "What each machine is told at its first boot, under its uid: up to 256 KB of what cloud-init understands. Needed to create machines, not to remove them."
  type        = map(string)
  default     = {}
  nullable    = false
  sensitive   = true

  # Base64 is what can be counted in bytes here; that makes the limit exact to 2 bytes.
  validation {
    condition     = alltrue([for text in values(var.user_data) : length(base64encode(text)) <= 349528])
    error_message = "A machine's user data must not be longer than 262144 bytes, which is Compute Engine's limit."
  }
}

variable "envelope" {
  description = "The output envelope of the module gcp/envelope."
  type = object({
    subnets        = map(string)
    network_tag    = string
    public_address = optional(bool, false)
    kms_key_id     = optional(string)
  })
  nullable = false

  validation {
    condition     = length(var.envelope.subnets) > 0
    error_message = "The envelope must have a subnetwork for at least one zone."
  }
}
