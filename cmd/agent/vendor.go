package main

import "strings"

// product is one that also freezes guests or takes their backups. A name that ends in * is the beginning of names.
type product struct {
	vendor string
	// services are names of the service control manager; providers are beginnings of the names of VSS providers.
	services, providers []string
}

// products are those that we know by name. The names are from the vendors' documents and from public lists of services
// (unverified); a product that is not here is not seen.
func products() []product {
	return []product{
		{"Acronis", []string{"AcrSch2Svc", "AcronisAgent", "MMS"}, []string{"Acronis"}},
		{"Amazon", []string{"AwsVssProvider*"}, []string{"AWS", "Ec2Vss"}},
		{"Arcserve", []string{"CASAD2DWebSvc", "CASUniversalAgent"}, []string{"Arcserve", "CA ARCserve"}},
		{"Cohesity", []string{"CohesityAgent"}, []string{"Cohesity"}},
		{"Commvault", []string{"GxCVD*", "GxVssProv*", "GxClMgrS*"}, []string{"Galaxy", "Commvault"}},
		{"Datto", []string{"DattoBackupAgentService", "DattoProvider"}, []string{"Datto"}},
		{"Dell", []string{"avbackup", "nsrexecd"}, []string{"Avamar", "NetWorker"}},
		{"Google", []string{"GoogleVssAgent", "GoogleVssProvider"}, []string{"Google"}},
		{"IBM", []string{"TSM *"}, []string{"IBM"}},
		{"Macrium", []string{"MacriumService"}, []string{"Macrium"}},
		{"Microsoft", []string{"DPMRA", "obengine", "wbengine"}, []string{"Azure", "IaasVm"}},
		{"NetApp", []string{"SnapDrive*", "SDSvc"}, []string{"Data ONTAP", "NetApp"}},
		{"Nutanix", []string{"Nutanix Guest*"}, []string{"Nutanix"}},
		{"QEMU", []string{"QEMU Guest Agent VSS Provider", "QEMU-GA"}, []string{"QEMU"}},
		{"Rubrik", []string{"Rubrik Backup Service"}, []string{"Rubrik"}},
		{"StorageCraft", []string{"ShadowProtectSvc", "vsnapvss"}, []string{"StorageCraft"}},
		{"Veeam", []string{"Veeam*"}, []string{"Veeam"}},
		{"Veritas", []string{"BackupExec*", "NetBackup*"}, []string{"Veritas", "Symantec", "Backup Exec"}},
		{"VMware", []string{"vmvss"}, []string{"VMware"}},
		{"Xen", []string{"xensvc", "XenServerVssProvider"}, []string{"Citrix", "Xen"}},
	}
}

// vendorOfService gives the vendor of a service, empty when it is not one of another backup product.
func vendorOfService(name string) string {
	for _, p := range products() {
		for _, s := range p.services {
			begin, open := strings.CutSuffix(s, "*")
			if strings.EqualFold(name, s) || (open && beginsWith(name, begin)) {
				return p.vendor
			}
		}
	}
	return ""
}

// vendorOfProvider gives the vendor of a VSS provider, by the name that it registered.
func vendorOfProvider(name string) string {
	for _, p := range products() {
		for _, begin := range p.providers {
			if beginsWith(name, begin) {
				return p.vendor
			}
		}
	}
	return ""
}

func beginsWith(s, begin string) bool {
	return len(s) >= len(begin) && strings.EqualFold(s[:len(begin)], begin)
}
