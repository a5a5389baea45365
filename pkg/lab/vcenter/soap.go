package vcenter

import (
	"bytes"
	"fmt"
	"net/http"
	"reflect"
	"strings"

	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
	"github.com/vmware/govmomi/vim25/xml"
)

const (
	envelopeHead = xml.Header + `<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"` +
		` xmlns:xsd="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body>`
	envelopeTail = `</soapenv:Body></soapenv:Envelope>`
)

// answer is a complete HTTP answer, held back until its half of the RTT has passed.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// Header, WriteHeader and Write make it the http.ResponseWriter of the simulator.
func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	a.body = append(a.body, p...)
	return len(p), nil
}

// encodeCall writes a SOAP request. It panics on a body that govmomi itself could not send, which is a bug of ours.
func encodeCall(body soap.HasFault) []byte {
	var out bytes.Buffer
	out.WriteString(xml.Header)
	if err := xml.NewEncoder(&out).Encode(soap.Envelope{Body: body}); err != nil {
		panic(fmt.Sprintf("encode %T: %v", body, err))
	}
	return out.Bytes()
}

// taskAnswer is the answer of a method that returns a task.
func taskAnswer(method string, task types.ManagedObjectReference) answer {
	text := fmt.Sprintf(`<%[1]sResponse xmlns="urn:%[2]s"><returnval type="Task">%[3]s</returnval></%[1]sResponse>`,
		method, vim25.Namespace, task.Value)
	return xmlAnswer(http.StatusOK, text)
}

// faultAnswer is a SOAP fault.
func faultAnswer(fault types.BaseMethodFault) answer {
	kind := reflect.TypeOf(fault).Elem().Name()
	var detail bytes.Buffer
	start := xml.StartElement{Name: xml.Name{Local: kind + "Fault"}, Attr: []xml.Attr{
		{Name: xml.Name{Local: "xmlns"}, Value: "urn:" + vim25.Namespace},
		{Name: xml.Name{Local: "xsi:type"}, Value: kind},
	}}
	if err := xml.NewEncoder(&detail).EncodeElement(fault, start); err != nil {
		panic(fmt.Sprintf("encode %T: %v", fault, err))
	}
	return xmlAnswer(http.StatusInternalServerError, strings.Join([]string{
		`<soapenv:Fault><faultcode>ServerFaultCode</faultcode><faultstring>`, kind, ` (planned by the lab)</faultstring><detail>`,
		detail.String(), `</detail></soapenv:Fault>`,
	}, ""))
}

func xmlAnswer(status int, inner string) answer {
	return answer{
		status: status,
		header: http.Header{"Content-Type": []string{"text/xml; charset=utf-8"}},
		body:   []byte(envelopeHead + inner + envelopeTail),
	}
}

// sessionCookie is the request's session key; empty when it has none.
func sessionCookie(r *http.Request) string {
	cookie, err := r.Cookie(soap.SessionCookieName)
	if err != nil {
		return "" // http.ErrNoCookie is the only error
	}
	return cookie.Value
}
