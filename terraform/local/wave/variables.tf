variable "deployment" {
  description = "The deployment that owns these machines, as the tag tango-deployment spells it."
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
  description = "The machines of this wave, each under its uid: 12 hexadecimal digits that no other machine ever has. The expiry is a time as in RFC 3339. A home is the absolute path of a folder that the machine's home is copied from; null for an empty one."
  type = map(object({
    image         = string
    instance_type = optional(string, "local")
    zone          = optional(string, "local")
    market        = optional(string, "on-demand")
    disk_gib      = optional(number)
    tags          = map(string)
    expires       = string
    home          = optional(string)
  }))
  nullable = false

  validation {
    condition     = alltrue([for uid in keys(var.machines) : can(regex("^[0-9a-f]{12}$", uid))])
    error_message = "Every key of machines must be a uid: 12 hexadecimal digits in lower case."
  }

  validation {
    condition     = alltrue([for machine in values(var.machines) : contains(["on-demand", "spot"], machine.market)])
    error_message = "A machine's market must be on-demand or spot."
  }

  validation {
    condition     = alltrue([for machine in values(var.machines) : can(timeadd(machine.expires, "0s"))])
    error_message = "A machine's expires must be a time as in RFC 3339, for example 2030-01-31T12:00:00Z."
  }

  validation {
    condition     = alltrue([for machine in values(var.machines) : startswith(coalesce(machine.home, "/"), "/")])
    error_message = "A machine's home must be an absolute path."
  }

  validation {
    condition = alltrue([
      for machine in values(var.machines) : alltrue([
        for key, text in machine.tags : can(regex("^[a-z0-9_-]{1,63}$", key)) && can(regex("^[a-z0-9_-]{0,63}$", text))
      ])
    ])
    error_message = "A machine's tags must keep to the characters a-z, 0-9, _ and -, and to 63 of them."
  }

  validation {
    condition = alltrue([
      for machine in values(var.machines) : lookup(machine.tags, "tango-deployment", "") != ""
    ])
    error_message = "A machine's tags must hold tango-deployment: who owns the machine is known by it."
  }
}

variable "user_data" {
  description = "What each machine is told at its start, under its uid: a JSON object with host_private_key, host_public_key and authorized_keys, a list. Needed to create machines, not to remove them."
  type        = map(string)
  default     = {}
  nullable    = false
  sensitive   = true
}

variable "envelope" {
  description = "The output envelope of the module local/envelope."
  type = object({
    root      = string
    python    = string
    server    = string
    isolate   = bool
    addresses = string
  })
  nullable = false

  validation {
    condition     = contains(["sshd", "asyncssh"], var.envelope.server)
    error_message = "The server must be sshd or asyncssh."
  }

  validation {
    condition     = startswith(var.envelope.root, "/") && startswith(var.envelope.python, "/")
    error_message = "The root and the python of the envelope must be absolute paths."
  }
}
