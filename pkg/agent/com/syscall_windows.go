package com

//sys	coInitializeEx(reserved uintptr, model uint32) (hr uint32) = ole32.CoInitializeEx
//sys	coUninitialize() = ole32.CoUninitialize
//sys	coInitializeSecurity(sd *windows.SECURITY_DESCRIPTOR, services int32, service unsafe.Pointer, reserved1 uintptr, authn uint32, imp uint32, auth uintptr, capabilities uint32, reserved3 uintptr) (hr uint32) = ole32.CoInitializeSecurity
//sys	coCreateInstance(clsid *GUID, outer uintptr, context uint32, iid *GUID, object **Object) (hr uint32) = ole32.CoCreateInstance
//sys	coRegisterClassObject(clsid *GUID, factory unsafe.Pointer, context uint32, flags uint32, cookie *uint32) (hr uint32) = ole32.CoRegisterClassObject
//sys	coResumeClassObjects() (hr uint32) = ole32.CoResumeClassObjects
//sys	coRevokeClassObject(cookie uint32) (hr uint32) = ole32.CoRevokeClassObject
//sys	sysFreeString(s *uint16) = oleaut32.SysFreeString
