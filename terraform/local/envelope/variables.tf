variable "deployment" {
  description = "The deployment that owns this envelope, as the tag tango-deployment spells it."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9_-]{1,63}$", var.deployment))
    error_message = "The deployment must be 1 to 63 of the characters a-z, 0-9, _ and -."
  }
}

variable "root" {
  description = "The folder that is the local cloud. Several deployments may share it."
  type        = string
  nullable    = false

  validation {
    condition     = startswith(var.root, "/") && var.root != "/"
    error_message = "The root must be an absolute path below /."
  }
}

variable "python" {
  description = "The Python interpreter (3.11 or newer) that starts and stops machines. For the server asyncssh, that package must be installed in it."
  type        = string
  nullable    = false

  validation {
    condition     = startswith(var.python, "/")
    error_message = "The python must be an absolute path."
  }
}

variable "server" {
  description = "The SSH server of every machine: sshd (OpenSSH's, which must be installed) or asyncssh."
  type        = string
  default     = "asyncssh"
  nullable    = false

  validation {
    condition     = contains(["sshd", "asyncssh"], var.server)
    error_message = "The server must be sshd or asyncssh."
  }
}

variable "isolate" {
  description = "Whether every machine is isolated by bubblewrap, which must be installed then. Without it jobs can read what their user can read on this host."
  type        = bool
  default     = false
  nullable    = false
}

variable "addresses" {
  description = "The loopback addresses that machines answer on, in CIDR notation. Where only 127.0.0.1 is configured (macOS), 127.0.0.1/32: machines then differ by their port alone."
  type        = string
  default     = "127.64.0.0/10"
  nullable    = false

  validation {
    condition     = can(cidrhost(var.addresses, 0)) && startswith(var.addresses, "127.")
    error_message = "The addresses must be a range below 127.0.0.0/8 in CIDR notation."
  }
}
