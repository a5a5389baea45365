package main

// servicePrefix begins the names of the services of all agents; the deployment follows.
const servicePrefix = "Stillframe-"

// serviceCodes are the codes of the error catalogue for what Windows says when a service cannot be installed or started
// (winerror.h).
var serviceCodes = map[uint32]string{
	2:    "SF3406", // ERROR_FILE_NOT_FOUND
	3:    "SF3406", // ERROR_PATH_NOT_FOUND
	5:    "SF3102", // ERROR_ACCESS_DENIED
	112:  "SF3306", // ERROR_DISK_FULL
	225:  "SF3403", // ERROR_VIRUS_INFECTED
	577:  "SF3403", // ERROR_INVALID_IMAGE_HASH
	1053: "SF3401", // ERROR_SERVICE_REQUEST_TIMEOUT
	1055: "SF3404", // ERROR_SERVICE_DATABASE_LOCKED
	1058: "SF3402", // ERROR_SERVICE_DISABLED
	1067: "SF3401", // ERROR_PROCESS_ABORTED
	1068: "SF3402", // ERROR_SERVICE_DEPENDENCY_FAIL
	1069: "SF3402", // ERROR_SERVICE_LOGON_FAILED
	1072: "SF3404", // ERROR_SERVICE_MARKED_FOR_DELETE
	1073: "SF3409", // ERROR_SERVICE_EXISTS
	1260: "SF3403", // ERROR_ACCESS_DISABLED_BY_POLICY
	1275: "SF3410", // ERROR_DRIVER_BLOCKED
	1722: "SF3407", // RPC_S_SERVER_UNAVAILABLE
}

// serviceCode gives the code of an error number of the service control manager; what it does not know is SF3703, no
// READY in time.
func serviceCode(number uint32) string {
	if code, ok := serviceCodes[number]; ok {
		return code
	}
	return "SF3703"
}
